//! The proof of the planner: the forecast as people read it, one small world for each rule of safety (`guards`), every world of two
//! servers and two bindings (`every_world`), and chaos with more of them (`chaos`). The truth is in `rack`, the checks in `checks`.

#[path = "plan/approvals.rs"]
mod approvals;
#[path = "plan/chaos.rs"]
mod chaos;
#[path = "plan/checks.rs"]
mod checks;
#[path = "plan/every_world.rs"]
mod every_world;
#[path = "plan/forecasts.rs"]
mod forecasts;
#[path = "plan/guards.rs"]
mod guards;
#[path = "plan/moves.rs"]
mod moves;
#[path = "plan/offs.rs"]
mod offs;
#[path = "plan/once.rs"]
mod once;
#[path = "plan/rack.rs"]
mod rack;
#[path = "plan/rollouts.rs"]
mod rollouts;
#[path = "plan/too_little.rs"]
mod too_little;
#[path = "plan/unresolved.rs"]
mod unresolved;
#[path = "plan/waits.rs"]
mod waits;
#[path = "plan/worlds.rs"]
mod worlds;
