"""The main job on real input: wait for a file and a moment, load, check, branch, report."""
