"""Reports for users: check, status, bench and the page of `check --plots`."""
