"""DICOM slides: a series of files, its levels, frames and colours."""
