"""The pages for browsers: HTML that the server renders from what the API's own handlers and the visible store return."""
