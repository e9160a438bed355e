"""What a job makes: its plan, the store of commits, tables, summary, verification."""
