"""Files of other programs: official TFRecords, picture folders, zip files."""
