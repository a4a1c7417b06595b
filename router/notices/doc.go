// Package notices follows the changes of the registry on a router (contract:
// events, sections 4.1 and 4.2; messaging, section 14).
//
// Facts come from the [Ingress], to which those post them who change the
// registry, or from the same process. A [Follower] voids the tokens that a fact
// ends, sends Hono's notification to adapters, and asks the registry's change
// feed for what no fact told: at start, a second after a gap, and, while tokens are
// in use, to confirm that nothing was missed.
//
// What is kept about a tenant is which of its sequence numbers were seen. It is
// bounded, and forgetting is safe: the next fact of a tenant that is not known
// is taken as it is, and what came before it lies within the time that the next
// confirmation asks for. A fact seen twice voids nothing that lives rightly, and
// makes adapters ask once more.
//
//	f := notices.New(notices.Options{Verifier: v, Invoker: inv, Publisher: r, Logger: log})
//	go f.Run(ctx)
//	mux.Handle("POST /events", notices.NewIngress(notices.IngressOptions{Name: name, Take: f.Take}))
package notices
