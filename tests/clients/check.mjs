// One line for each check.

export const tally = { passed: 0, failed: 0 };

export function passed(name) {
  tally.passed += 1;
  console.log(`ok      ${name}`);
}

export function failed(name, why) {
  tally.failed += 1;
  console.log(`FAILED  ${name}: ${String(why).trim().split('\n').slice(-15).join(' | ')}`);
}

/** Gives what `run` gives; `undefined` when it throws. */
export async function check(name, run) {
  try {
    const value = await run();
    passed(name);
    return value;
  } catch (error) {
    failed(name, error.message);
    return undefined;
  }
}
