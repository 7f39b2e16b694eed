// Requests to the model, one at a time.

/** A function that runs `task(signal, superseded)`, one run at a time; calls during a run cause one further run.
 *
 * The last run is therefore always for the latest state, without a queue. `{ abandon: true }` aborts the current run.
 * `superseded()` tells a task that another run is waiting. Errors of the task go to `failed`; after an error with
 * `retryAfter`, in seconds, from the server, the task runs again.
 */
export function latestOnly(task, failed) {
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

  return async function request({ abandon = false } = {}) {
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
