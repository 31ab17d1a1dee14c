// Asking often without asking too much: one question at a time, once a frame, the newest wins.

/** A function that hands its last argument to `ask`, and the answer to `use` or the error to `fail`. */
export function latest(ask, use, fail) {
  let waiting = null;
  let busy = false;

  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

  return async (argument) => {
    waiting = { argument };
    if (busy) return;
    busy = true;
    while (waiting) {
      await frame();
      const question = waiting;
      waiting = null;
      try {
        const answer = await ask(question.argument);
        if (!waiting) use(answer, question.argument);
      } catch (error) {
        if (!waiting) fail(error);
      }
    }
    busy = false;
  };
}
