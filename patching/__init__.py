"""The one library that knows a host's protocol: ComfyUI's, which the embedded host speaks as well.

Formulas live in libraries that know torch alone. What they need of a host comes from here, by name: wrappers around a
run and how they get into a MODEL (`wrappers`), the arguments of the wrapped calls (`calls`), replacements of attention
and of blocks (`attention`), the range of the schedule in which a patch acts (`schedule`), what kind of network a model
has (`networks`), and VAEs (`vaes`).
"""
