// Package observe lets people and platforms see what the program does: the logger,
// the version, and the HTTP handler of the health listener
// with MicroProfile health documents (contract: adapters 17).
//
// It opens no listener, and it does not trace.
//
//	log, err := observe.NewLogger(os.Stderr, observe.LogOptions{Level: "info"})
//	health := observe.NewHealth()
//	health.Readiness("router-connected", func(context.Context) (bool, map[string]any) {
//		return downstream.Ready(), nil
//	})
//	http.Serve(l, observe.NewHandler(health, metrics.Handler(registry)))
package observe
