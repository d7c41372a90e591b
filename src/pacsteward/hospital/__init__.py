"""A pretend hospital outside the walls: patients, modalities and their images, all seeded.

It knows nothing of ours but the standards: it may import the languages (`dicom`) and reaches the
archive over sockets only, as a real device would. One hospital, three uses: the developer's
playground, the fixture of journeys, the simulator to train in.
"""
