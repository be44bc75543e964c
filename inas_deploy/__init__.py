"""Floor 4: the kit a person uses: measure, report, convert and bundle."""
