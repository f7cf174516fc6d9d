"""What people look at: figures, the reviewer's page, the film of the cache, the player. Shows what was measured; measures nothing.

Door: `report_page.build`, `figures`.
"""
