"""The commands: arguments -> one call into ftjax -> print; a file per question."""
