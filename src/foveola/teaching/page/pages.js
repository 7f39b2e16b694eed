// The images of a class, asked for by pages.

import { request } from "./backend.js";
import { trouble } from "./messages.js";

const PAGE = 200;

/** The images of one class, each { id, near, recording }; `arrived()` is called when more of them are known. */
export function pictureSource(arrived) {
  let label = null, pages = new Map(), stale = new Set(), asked = new Set();

  async function load(number) {
    const present = pages;
    asked.add(number);
    stale.delete(number);
    try {
      const found = await ask(number);
      if (present !== pages) return;
      pages.set(number, found);
      asked.delete(number);
      arrived();
    } catch (error) {
      if (present === pages) asked.delete(number);
      if (error.status !== 0 && error.status !== 404) trouble(error.message); // 404: the class is gone, which is shown
    }
  }

  async function ask(number) {
    const parameters = new URLSearchParams({ class: label, from: number * PAGE, count: PAGE });
    return (await request(`project/pictures?${parameters}`)).pictures;
  }

  return {
    /** Forget everything, and ask for the images of this class from now on. */
    restart(name) {
      label = name;
      [pages, stale, asked] = [new Map(), new Set(), new Set()];
    },
    /** There are more images than these `total`. */
    grown(total) { stale.add(Math.floor(total / PAGE)); },
    /** The image at a position; undefined while it is not known. */
    at: index => pages.get(Math.floor(index / PAGE))?.[index % PAGE],
    /** Ask for the images from `first` to before `end` that are not known. */
    need(first, end) {
      for (let number = Math.floor(first / PAGE); number * PAGE < end; number++) {
        if ((!pages.has(number) || stale.has(number)) && !asked.has(number)) load(number);
      }
    },
    /** The ids of all images. */
    async ids(total) {
      const found = [];
      for (let number = 0; number * PAGE < total; number++) found.push(...await ask(number));
      return found.map(({ id }) => id);
    },
  };
}
