/** Pictures of patches, fetched and decoded before they are shown. */

export class Pictures {
  constructor() {
    /** @type {Map<string, HTMLImageElement>} */
    this.held = new Map();
  }

  /** The picture at an address; always the same element while it is held. @param {string} address */
  of(address) {
    const known = this.held.get(address);
    if (known !== undefined) return known;
    const made = new Image();
    made.decoding = "sync"; // drawn in the frame of its page, not in one after it
    made.draggable = false;
    made.src = address;
    this.held.set(address, made);
    return made;
  }

  /** Has pictures at hand, decoded. @param {string[]} addresses */
  async ahead(addresses) {
    await Promise.allSettled(addresses.map((address) => this.of(address).decode()));
  }

  /** Lets go of all but these. @param {Set<string>} addresses */
  keep(addresses) {
    for (const address of this.held.keys()) if (!addresses.has(address)) this.held.delete(address);
  }
}
