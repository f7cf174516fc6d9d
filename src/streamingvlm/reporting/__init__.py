"""What people look at: figures, the reviewer's page and the band it opens with, the film of the cache, the player. Shows what was measured; measures
nothing.

Door: `report_page.build`, `figures`. A new figure: a function in `figures` that makes panels of rows and hands them to `drawing.draw`, and a line in
`report_page.FIGURES`.
"""
