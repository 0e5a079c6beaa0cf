"""Everything that draws: tiles by kind of field, sheets, codes, neighbours."""
