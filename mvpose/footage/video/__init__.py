"""Frames of videos and image folders: decoded by number and paired across cameras."""
