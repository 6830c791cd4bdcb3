"""What people see of a result: text, charts and HTML, made from records alone."""
