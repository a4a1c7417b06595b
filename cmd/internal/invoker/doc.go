// Package invoker makes the invoker that a setting of the configuration names:
// over HTTP for a URL, by the Invoke API for lambda: and a function.
//
//	inv, err := invoker.New(cfg.Functions.Identity, invoker.Options{Source: "//sluice.local/router/0", TLS: own, Log: log})
//	defer inv.Close()
package invoker
