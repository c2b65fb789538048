// MIDI input: all inputs, all channels.

export async function listen({ on, off }, changed) {
  const access = await navigator.requestMIDIAccess();
  const heard = ({ data: [status, note, velocity] }) => {
    const kind = status & 0xf0;
    if (kind === 0x90 && velocity > 0) on(note, velocity);
    else if (kind === 0x80 || kind === 0x90) off(note);
  };
  const connect = () => {
    const inputs = [...access.inputs.values()];
    inputs.forEach((input) => {
      input.onmidimessage = heard;
    });
    changed(inputs.map((input) => input.name ?? "MIDI input"));
  };
  access.onstatechange = connect;
  connect();
}
