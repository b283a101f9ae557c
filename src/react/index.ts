// The public names of `fanwire/react`.
export {
  type ChannelOptions,
  type EventsFrom,
  type HandledOf,
  type UseEventsOptions,
  useEvents,
  useLatest,
} from "./use-events.ts";
