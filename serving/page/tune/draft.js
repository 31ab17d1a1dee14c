// The policy being edited: what is in force, what is drafted, and what was in force before.

/** Whether two policies say the same; certificates are no part of what they say. */
export function same(a, b) {
  return (a.reject_below || 0) === (b.reject_below || 0) && sameLabels(a, b);
}

/** Whether two policies find the same labels, which either may withhold. */
export function sameLabels(a, b) {
  return JSON.stringify(rules(a)) === JSON.stringify(rules(b));
}

function rules({ mode, measure, combine, thresholds, max_exit }) {
  return [mode, measure, combine, thresholds, max_exit];
}

export class Draft {
  /** `answer` is {revision, policy, certificate_verified} as the server gave it. */
  constructor(answer) {
    this.before = [];
    this.load(answer);
  }

  /** `answer` is in force; the draft begins there. What was undone cannot be by now. */
  load({ revision, policy, certificate_verified: verified }) {
    Object.assign(this, { revision, verified, inForce: policy, policy });
  }

  /** Keep the draft, but take `answer` as what is in force. */
  rebase({ revision, policy, certificate_verified: verified }) {
    Object.assign(this, { revision, verified, inForce: policy });
    this.change({});
  }

  /** Change some fields. A certificate of the labels holds for any `reject_below`, one of the precision for
   *  the certified policy alone. */
  change(fields) {
    const next = { ...this.policy, ...fields };
    delete next.precision_certificate;
    next.certificate = sameLabels(next, this.inForce) ? this.inForce.certificate : null;
    this.policy = same(next, this.inForce) ? this.inForce : next;
  }

  get dirty() {
    return !same(this.policy, this.inForce);
  }

  /** Whether the draft finds other labels than the policy in force. */
  get relabels() {
    return !sameLabels(this.policy, this.inForce);
  }

  /** The server took the draft. */
  applied(answer) {
    this.before.push(this.inForce);
    this.load(answer);
  }

  /** The server took the policy before the last one again. */
  undone(answer) {
    this.before.pop();
    this.load(answer);
  }
}
