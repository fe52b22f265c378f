//! The proof of the planner: the forecast as people read it, one small world for each rule of safety (`guards`), every world of two
//! servers and two bindings (`every_world`), and chaos with more of them (`chaos`). Truth and checks are in `rack`.

#[path = "plan/chaos.rs"]
mod chaos;
#[path = "plan/every_world.rs"]
mod every_world;
#[path = "plan/forecasts.rs"]
mod forecasts;
#[path = "plan/guards.rs"]
mod guards;
#[path = "plan/rack.rs"]
mod rack;
