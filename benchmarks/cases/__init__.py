"""What is measured, case by case; every one yields measurements."""
