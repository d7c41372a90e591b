"""A pretend hospital outside the walls: patients, modalities and their images, all seeded.

It knows nothing of ours but the standards: it may import the languages (`dicom`) and reaches the
archive over sockets only, as a real device would. One hospital, three uses: the developer's
playground, what journeys send, the patients of a simulated day.
"""
