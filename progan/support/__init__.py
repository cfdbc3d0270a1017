"""What any program needs: files, errors, configurations, devices, randomness, worker processes."""
