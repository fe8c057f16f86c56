//! From signals to a scaling plan: demand, forecast, capacity, plan, guard, what-if fleet.
