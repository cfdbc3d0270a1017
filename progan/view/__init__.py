"""What people look at: the viewer's server and pages, and the report that is handed on."""
