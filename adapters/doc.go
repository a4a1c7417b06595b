// Package adapters is what all protocol adapters share: admission of devices
// (cached, concurrent equal questions asked once, failed attempts bounded), the
// checks of an upload, the message that goes to the applications and the port
// it leaves by, and the way back: who takes commands, and who is told of it.
//
// An adapter translates: bytes of its protocol into a [Request] and an
// [Upload], the error that comes back into a status of its protocol (table in
// internal/status). It decides nothing else. Rules: contract adapters,
// sections 1 to 5, and messaging, sections 7 and 15.
//
//	adm := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: invoker})
//	defer adm.Close()
//	p := adapters.NewPipeline(adapters.Options{Type: "hono-http", Admissions: adm, Downstream: routers})
//
//	who, err := p.Admit(ctx, &adapters.Request{Admit: admit, Remote: addr})
//	...
//	err = p.Publish(ctx, who, &adapters.Upload{Endpoint: iot.Telemetry, Payload: body, ContentType: "text/plain"})
//
// A protocol with connections keeps [Sessions]: a device is let in once, its
// messages are let in by what is known already, and it is disconnected when the
// registry no longer lets it in. [Pipeline.Submit] sends without waiting.
//
//	sessions := adapters.NewSessions(p, adapters.SessionOptions{Max: 20000})
//	notices := adapters.NoticeHandlers{adm, sessions} // for whoever hears of changes
//	login, err := adapters.PasswordLogin(user, password)
//	...
//	s, err := sessions.Open(ctx, login, addr, func(why error) { conn.Close() })
//	...
//	who, ok, err := s.TryAdmit(tenant, device)
//	if !ok {
//		who, err = s.Admit(ctx, tenant, device)
//	}
//	...
//	p.Submit(who, upload, func(err error) { acknowledge(err) })
//
// Devices take commands by a [CommandSubscription]. One [Commands] knows those of all
// adapters of a process: routers are told of them by an [Announcer], and hand it what
// applications send. Of several subscriptions of one device the latest counts. A response
// is an upload that says where it goes. Rules: contract adapters, section 6, and messaging,
// sections 9 and 11.
//
//	commands := adapters.NewCommands(adapters.CommandsOptions{}) // Options.Commands
//	commands.AnnounceTo(routers)
//	...
//	sub, err := p.Subscribe(ctx, adapters.Subscribe{Who: who, Notify: true, Address: filter, Deliver: func(c *adapters.Command, done func(error)) {
//		id, err := c.RequestID()
//		...
//		done(err) // once the device has it, or has not
//	}})
//	defer sub.Close(false)
//	...
//	up := &adapters.Upload{Endpoint: iot.CommandResponse, Status: status, Payload: body}
//	if up.To, err = adapters.ParseRequestID(id, who.Device()); err == nil {
//		err = p.Publish(ctx, who, up)
//	}
//
// What becomes of a subscription is told to applications by a [Presence], whoever the
// routers are; what becomes of an announcement never is.
package adapters
