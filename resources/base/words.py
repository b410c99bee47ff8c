"""The words of the captions of General MIDI sounds: instruments, registers, dynamics, lengths."""

from __future__ import annotations

from dataclasses import dataclass

INSTRUMENTS = """grand piano|bright piano|electric grand piano|honky-tonk piano|electric piano|chorused electric piano|
harpsichord|clavinet|celesta|glockenspiel|music box|vibraphone|marimba|xylophone|tubular bells|dulcimer|drawbar organ|
percussive organ|rock organ|church organ|reed organ|accordion|harmonica|bandoneon|nylon-string guitar|steel-string
guitar|jazz guitar|clean electric guitar|muted electric guitar|overdriven guitar|distorted guitar|guitar harmonics|
double bass|fingered electric bass|picked electric bass|fretless bass|slapped bass|popped bass|synthesizer bass|deep
synthesizer bass|violin|viola|cello|bowed double bass|tremolo strings|pizzicato strings|harp|timpani|string ensemble|
slow string ensemble|synthesizer strings|soft synthesizer strings|choir singing aah|choir singing ooh|synthetic choir|
orchestra hit|trumpet|trombone|tuba|muted trumpet|french horn|brass section|synthesizer brass|soft synthesizer brass|
soprano saxophone|alto saxophone|tenor saxophone|baritone saxophone|oboe|english horn|bassoon|clarinet|piccolo|flute|
recorder|pan flute|blown bottle|shakuhachi|whistle|ocarina|square-wave lead|sawtooth lead|calliope lead|chiffy lead|
charang lead|voice lead|lead in fifths|bass and lead|new age pad|warm pad|polysynth pad|choir pad|bowed glass pad|
metallic pad|halo pad|sweeping pad|ice rain texture|soundtrack texture|crystal texture|atmosphere texture|brightness
texture|goblin texture|echo drops texture|star theme texture|sitar|banjo|shamisen|koto|kalimba|bagpipe|fiddle|shanai|
tinkle bell|agogo|steel drum|woodblock|taiko drum|melodic tom|synthesizer drum|reversed cymbal|guitar fret noise|
breath noise|seashore|bird tweet|telephone ring|helicopter|applause|gunshot"""
NAMES = [" ".join(name.split()) for name in INSTRUMENTS.split("|")]
# What sounds and what is done to it, by the families of eight programs of General MIDI.
FAMILIES = (
    ("felt hammers on strings", "struck"), ("metal or wooden bars", "struck with mallets"),
    ("air in pipes and reeds", "played"), ("guitar strings", "plucked"), ("thick bass strings", "plucked"),
    ("strings", "played"), ("an ensemble", "played"), ("a brass mouthpiece", "blown"),
    ("a vibrating reed", "blown"), ("air across an edge", "blown"), ("an electronic oscillator", "played"),
    ("layered electronic oscillators", "played"), ("electronic textures", "played"),
    ("a folk instrument", "played"), ("skin, wood or metal", "struck"), ("a sound effect", "played"),
)  # fmt: skip
DRUMS = """high synthesizer blip|slapped hand|scratch push|scratch pull|drumsticks|metronome click|metronome bell|
acoustic bass drum|bass drum|side stick|snare drum|hand clap|electric snare drum|low floor tom|closed hi-hat|high floor
tom|pedal hi-hat|low tom|open hi-hat|low-mid tom|high-mid tom|crash cymbal|high tom|ride cymbal|chinese cymbal|ride
bell|tambourine|splash cymbal|cowbell|second crash cymbal|vibraslap|second ride cymbal|high bongo|low bongo|muted high
conga|open high conga|low conga|high timbale|low timbale|high agogo|low agogo|cabasa|maracas|short whistle|long
whistle|short guiro|long guiro|claves|high woodblock|low woodblock|muted cuica|open cuica|muted triangle|open
triangle|shaker|jingle bells|bell tree|castanets|muted surdo|open surdo|drum"""
DRUM_NAMES = [" ".join(name.split()) for name in DRUMS.split("|")]  # from key 27


def article(phrase: str) -> str:
    plural = phrase.endswith(("strings", "drumsticks", "bells", "maracas", "claves", "castanets", "harmonics"))
    uncounted = phrase in ("timpani", "applause") or phrase.startswith(("synthesizer strings", "soft synthesizer"))
    return phrase if plural or uncounted else f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"


def step(value: float, levels: tuple[tuple[float, str], ...]) -> str:
    return next(word for limit, word in levels if value <= limit)


def register(key: float) -> str:
    return step(key, ((35, "very low"), (51, "low"), (66, "middle"), (81, "high"), (127, "very high")))


def dynamics(velocity: int) -> str:
    return step(
        velocity, ((30, "very softly"), (55, "softly"), (80, "moderately"), (105, "loudly"), (127, "very loudly"))
    )


def length(seconds: float) -> str:
    return step(seconds, ((0.3, "very short"), (0.7, "short"), (1.6, "held"), (9.0, "long sustained")))


@dataclass(frozen=True)
class Words:
    """What is said of a note or a chord."""

    name: str  # of the instrument
    what: str  # the same with its article
    material: str
    action: str
    kind: str  # note, or three-note chord
    high: str
    loud: str
    long: str

    @property
    def keywords(self) -> list[str]:
        return [self.name, self.kind.split()[-1], self.high, self.loud, self.long]


def words_of(row: dict[str, str]) -> Words:
    """The words for a row of kind note or chord in the table of make_corpus.py."""
    keys, program = [int(key) for key in row["keys"].split()], int(row["program"])
    kind = "note" if len(keys) == 1 else f"{('three', 'four')[len(keys) - 3]}-note chord"
    high, loud, long = register(sum(keys) / len(keys)), dynamics(int(row["velocity"])), length(float(row["held_s"]))
    return Words(NAMES[program], article(NAMES[program]), *FAMILIES[program // 8], kind, high, loud, long)
