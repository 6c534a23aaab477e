// The two things of ComfyUI's app that an extension needs to register itself.
export const app = {
  extensions: [],
  registerExtension(extension) {
    this.extensions.push(extension);
    extension.setup?.(this);
  },
};
