"""How CelebA-HQ was made of CelebA's photographs (paper appendix C), step by step."""
