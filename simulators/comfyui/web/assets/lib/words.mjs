// A module without a content hash in its name: may only be reused after a revalidation.
export const remaining = (count) => (count ? `${count} in the queue` : "idle");
