import { app } from "../../scripts/app.js";

app.registerExtension({ name: "Simulator.Hello", setup() { document.body.dataset.extensions = "ready"; } });
