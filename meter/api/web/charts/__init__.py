"""What charts show, as records with their coordinates; ``templates/charts.html`` makes SVG or data for uPlot of them."""
