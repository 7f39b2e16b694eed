// Questions to the model, one at a time.

/** A function that has `task(signal, superseded)` run: one run at a time, and calls during a run make one more.
 *
 * So the newest state is always asked about in the end, and none waits in a queue. With `{ abandon: true }` the run in
 * progress is given up. `superseded()` tells a task that another run waits. What a task throws goes to `failed`; where
 * the server says when to come back (`retryAfter`, in seconds), the task runs again then.
 */
export function newestWins(task, failed) {
  let running = null, again = false;

  async function attempt() {
    running = new AbortController();
    const { signal } = running;
    try {
      await task(signal, () => again);
    } catch (error) {
      if (signal.aborted) return;
      failed(error);
      if (error.retryAfter === undefined) return;
      await new Promise(resolve => setTimeout(resolve, 1000 * error.retryAfter));
      again = true;
    }
  }

  return async function ask({ abandon = false } = {}) {
    again = true;
    if (abandon) running?.abort();
    if (running) return;
    while (again) {
      again = false;
      await attempt();
    }
    running = null;
  };
}
