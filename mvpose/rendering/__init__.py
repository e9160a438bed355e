"""Images of people who never were, by any rig, with what is true of them: joints, cameras, visibility."""
