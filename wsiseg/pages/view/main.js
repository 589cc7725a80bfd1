/** The viewer. */
import { element } from "../common/dom.js";

document.body.append(element("p", {}, `OpenSeadragon ${OpenSeadragon.version.versionStr}`));
