"""The page *Query*: builds a question to the API, asks it by the API's own handler, and shows answer, URL and command line."""
