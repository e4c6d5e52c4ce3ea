"""The usage of a meter by group, over a range and by window, as the pages *Usage* and *Top* show it."""
