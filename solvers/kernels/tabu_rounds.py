"""Searches of rows by tabu runs: with a pool of states, or in passes over parts."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inlined, inner, jit
from solvers.kernels.streams import GOLDEN, next_uniform, to_uniform
from solvers.kernels.tabu import (
    FOREVER,
    FREE,
    UNSIGNED,
    begin,
    draw,
    ended,
    exact_energy,
    follow,
    forced,
    signs,
    stand,
    tabu,
)
from solvers.kernels.tabu_parts import sweep_parts

# A pool is emptied after this many runs without a new state, per place of the pool.
STALE = 5
# Differences of energies, in a row's unit, that may be rounding: of sums in float64,
# and of fields that have followed many flips.
EXACT, DRIFT = 1e-13, 1e-10


@inlined
def energy_at(model, place, r):
    """Energy of the state ``here[r]``."""
    return exact_energy(model.scale, model.linear, model.offset, r, place.here, place.u)


@inlined
def stand_at(exact, model, place, run, r):
    """Compute the run's signed scales and costs of row r at ``here[r]``."""
    stand(
        exact,
        model.scale,
        model.barred,
        model.unit,
        model.root,
        r,
        place.noise,
        place.here,
        place.u,
        run.z,
        run.cost,
    )


@inlined
def improve_parts(exact, matrix, rules, model, place, run, r, order, rng, which, step):
    """Search the parts of ``here[r]``, and move to the state found by `sweep_parts`."""
    stand_at(exact, model, place, run, r)
    found = sweep_parts(
        matrix,
        run,
        r,
        rules.subsize,
        rules.part_patience,
        rules.spread,
        place.noise[r],
        order,
        rng,
    )
    signs(r, run.z, run.best)
    follow(exact, model.scale, r, run.best[r], place.here, place.u, which, step)
    return found


@inlined
def redraw(r, order, count, size, x, rng):
    """Redraw, in x, up to `size` of the first `count` variables in `order`."""
    for k in range(min(size, count)):
        other = draw(rng, r, k, count - 1)
        order[k], order[other] = order[other], order[k]
        x[r, order[k]] = next_uniform(rng, r) < 0.5


@jit
def passes(exact, matrix, rules, count, model, place, run, rng, champion):
    """Make `count` more passes of every row, or until `repeats` passes on end are idle.

    A pass begins at ``here[r]``, whose fields are ``u[r]``. A pass is idle if it does
    not improve on the champion; the next one then begins at the champion with `subsize`
    variables redrawn. After any other pass, the next one begins where it ended.

    Parameters
    ----------
    exact : float64 [n, n]
        The matrix that energies are computed with.
    matrix : Matrix
    rules : PassRules
    model : Model
    place : Place
    run : Run
    rng : uint64 [R]
    champion : Champion
    """
    n = exact.shape[0]
    which = np.empty(n, np.int64)
    step = np.empty(n)
    order = np.empty(n, np.int64)
    here, u, best = place.here, place.u, run.best
    scale, unit, most = model.scale, model.unit, model.most
    idle, energy = champion.idle, champion.energy
    for r in range(len(most)):
        for _ in range(count):
            if idle[r] >= rules.repeats or most[r] < 0:
                break
            run.value[r] = energy_at(model, place, r) / unit[r]
            stand_at(exact, model, place, run, r)
            begin(r, n, run)
            tenure = min(draw(rng, r, rules.shortest, rules.longest), most[r])
            spread = min(rules.spread, most[r] - tenure)
            while not ended(run.clock, run.found, r, rules.patience):
                tabu(
                    matrix,
                    run,
                    r,
                    rules.patience,
                    rules.patience,
                    tenure,
                    spread,
                    place.noise[r],
                    rng,
                )
            follow(exact, scale, r, best[r], here, u, which, step)
            free, _ = improve_parts(
                exact, matrix, rules, model, place, run, r, order, rng, which, step
            )
            reached = energy_at(model, place, r)
            champion.made[r] += 1
            if reached < energy[r] - EXACT * unit[r]:
                energy[r] = reached
                copy(best[r], champion.states[r])
                idle[r] = 0
            else:
                idle[r] += 1
                copy(champion.states[r], best[r])
                redraw(r, order, free, rules.subsize, best, rng)
                follow(exact, scale, r, best[r], here, u, which, step)


@inlined
def allow_between(states, r, a, b, expiry):
    """Allow the variables in which the pool's states a and b differ, and count them."""
    count = 0
    for j in range(states.shape[2]):
        differs = states[r, a, j] != states[r, b, j]
        expiry[r, j] = FREE if differs else FOREVER
        count += differs
    return count


@inlined
def allow_some(share, r, n, expiry, rng):
    """Allow each variable with probability `share`."""
    seed = rng[r]
    for j in range(UNSIGNED(n)):
        chosen = to_uniform(seed + (j + UNSIGNED(1)) * GOLDEN) < share
        expiry[r, j] = FREE if chosen else FOREVER
    rng[r] = seed + UNSIGNED(n) * GOLDEN


@inlined
def leave(matrix, run, r, a, rules, states, held, rng):
    """Walk away from state a of the pool, the row's present state.

    With probability `relink`, once the pool is full, the walk goes between a third and
    two thirds of the way to another state of the pool (path relinking; Wang et al.
    2012). Otherwise it makes from `weakest` to `strongest` flips among a random `share`
    of the variables (as Palubeckis 2006 perturbs). The cheapest flip is always made
    first. Returns the number of flips and the change of the energy.
    """
    expiry = run.expiry
    if 1 < held[r] == states.shape[1] and next_uniform(rng, r) < rules.relink:
        b = draw(rng, r, 0, held[r] - 2)
        b += b >= a
        distance = allow_between(states, r, a, b, expiry)
        steps = draw(rng, r, (distance + 2) // 3, (2 * distance + 2) // 3)
    else:
        allow_some(rules.share, r, matrix.H.shape[0], expiry, rng)
        steps = draw(rng, r, rules.weakest, rules.strongest)
    H, index, low = matrix.H, matrix.labels, matrix.low
    return forced(H, run.z, run.cost, expiry, r, steps, index, low)


@inner
def copy(x, out):
    """Copy the state x into `out`."""
    for j in range(len(x)):
        out[j] = x[j]


@inlined
def offer(states, energies, held, r, x, energy, noise):
    """Take x into the pool if it is new, and a place is free or the worst state worse.

    Returns whether x was taken.
    """
    size, n = states.shape[1:]
    worst = 0
    for k in range(held[r]):
        if abs(energies[r, k] - energy) <= noise:
            j = 0
            while j < n and states[r, k, j] == x[j]:
                j += 1
            if j == n:
                return False
        if energies[r, k] > energies[r, worst]:
            worst = k
    if held[r] < size:
        worst = held[r]
        held[r] += 1
    elif energy >= energies[r, worst]:
        return False
    copy(x, states[r, worst])
    energies[r, worst] = energy
    return True


@inlined
def empty(states, energies, held, r):
    """Remove all states but the best from the pool."""
    best = 0
    for k in range(energies.shape[1]):
        if energies[r, k] < energies[r, best]:
            best = k
    copy(states[r, best], states[r, 0])
    energies[r, 0] = energies[r, best]
    for k in range(1, energies.shape[1]):
        energies[r, k] = np.inf
    held[r] = 1


@inlined
def worst_energy(energies, r):
    """The highest energy in the pool; infinite as long as a place is free."""
    highest = energies[r, 0]
    for k in range(1, energies.shape[1]):
        highest = max(highest, energies[r, k])
    return highest


@jit
def search(exact, matrix, rules, until, model, place, run, rng, pool):
    """Continue every row's search until it has `spent` a number of flips; count `runs`.

    A run leaves a random state of the pool (the first one begins at ``here[r]``),
    searches with a tenure from `shortest` to `longest`, and offers its best state to
    the pool, first improved part by part if `subsize` is not 0. A pool that does not
    change for long is emptied but for its best state. A search may be cut into calls
    anywhere without being changed. A row without a free variable is left alone.

    Parameters
    ----------
    exact : float64 [n, n]
        The matrix that energies are computed with.
    matrix : Matrix
    rules : Rules
    until
        Flips that a row has spent in the end.
    model : Model
    place : Place
    run : Run
    rng : uint64 [R]
    pool : Pool
    """
    n = exact.shape[0]
    which = np.empty(n, np.int64)
    step = np.empty(n)
    order = np.empty(n, np.int64)
    here, u, noise = place.here, place.u, place.noise
    scale, unit, most = model.scale, model.unit, model.most
    states, energies, held = pool.states, pool.energies, pool.held
    spent, tenure, stale = pool.spent, pool.tenure, pool.stale
    for r in range(len(most)):
        while spent[r] < until and most[r] >= 0:
            if not pool.going[r]:
                a = draw(rng, r, 0, held[r] - 1) if held[r] else -1
                if a >= 0:
                    follow(exact, scale, r, states[r, a], here, u, which, step)
                run.value[r] = energy_at(model, place, r) / unit[r]
                stand_at(exact, model, place, run, r)
                if a >= 0:
                    made, change = leave(matrix, run, r, a, rules, states, held, rng)
                    spent[r] += made
                    run.value[r] += change
                begin(r, n, run)
                tenure[r] = min(draw(rng, r, rules.shortest, rules.longest), most[r])
                pool.going[r] = True
            spent[r] += tabu(
                matrix,
                run,
                r,
                until - spent[r],
                rules.patience,
                tenure[r],
                min(rules.spread, most[r] - tenure[r]),
                noise[r],
                rng,
            )
            if not ended(run.clock, run.found, r, rules.patience):
                continue
            pool.going[r] = False
            pool.runs[r] += 1
            stale[r] += 1
            if stale[r] >= STALE * states.shape[1]:
                # The states have become too similar to lead anywhere new.
                empty(states, energies, held, r)
                stale[r] = 0
            # Most runs end above all of the pool: improving them would be wasted.
            if run.lowest[r] > worst_energy(energies, r) / unit[r] + 100.0 * noise[r]:
                continue
            follow(exact, scale, r, run.best[r], here, u, which, step)
            if rules.subsize:
                _, made = improve_parts(
                    exact, matrix, rules, model, place, run, r, order, rng, which, step
                )
                spent[r] += made
            energy = energy_at(model, place, r)
            if offer(states, energies, held, r, run.best[r], energy, DRIFT * unit[r]):
                stale[r] = 0
