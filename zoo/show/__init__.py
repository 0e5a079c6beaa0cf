"""Everything that draws: sheets of panels, tiles by kind of field, points, codes, neighbours."""
