/** Keeps a promise in a set for as long as it is pending. */
export function track<T>(pending: Set<Promise<unknown>>, promise: Promise<T>): Promise<T> {
  const settled = (): unknown => pending.delete(promise);
  pending.add(promise);
  promise.then(settled, settled);
  return promise;
}
