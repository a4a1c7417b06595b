// Package health asks a process of ours whether it is ready, for containers that
// have no shell and no HTTP client: the program in them asks itself.
//
//	err := health.Run("sluice-edge", args, health.Options{Listeners: config.RouterListeners()}, os.Stderr)
package health
