package router

import (
	"context"
	"strings"
	"sync"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/command"
	"github.com/sluice-iot/sluice/router/forward"
)

// commands are what makes a router the one that commands go through; without
// an invoker, which knows the devices, there are none.
type commands struct {
	directory     *command.Directory
	announcements *command.Announcements
	server        *command.Server
	foreign       *command.Foreign
}

const (
	commandEndpoint = "command"
	// maxAnnouncementMessage leaves room around [command.MaxAnnouncement].
	maxAnnouncementMessage = 64 * 1024
)

func (r *Router) newCommands(o *Options) *commands {
	d := command.NewDirectory(command.Options{Invoker: o.Invoker, Send: r.forward.Publish, Offer: r.forward.TryPublish, Present: r.forward.Present, Logger: o.Logger})
	may := func(c *peer.Conn, address string) bool {
		id := r.identity(c)
		return id != nil && id.May(address, auth.Read)
	}
	return &commands{directory: d, announcements: command.NewAnnouncements(d, may), server: command.NewServer(d),
		foreign: command.NewForeign(command.ForeignOptions{Directory: d, Invoker: o.Invoker, Publish: r.Publish, Logger: o.Logger})}
}

// run forgets what is old until ctx ends, and then gives up what is under way.
func (s *commands) run(ctx context.Context) {
	s.foreign.Run(ctx)
	var closing sync.WaitGroup
	closing.Go(s.directory.Close) // ends look-ups, whose commands end with them
	s.server.Close()
	closing.Wait()
}

// CommandDirectory is what the router knows of the ways to devices; nil without an
// invoker, because commands then go to whoever receives at their address.
func (r *Router) CommandDirectory() *command.Directory {
	if r.commands == nil {
		return nil
	}
	return r.commands.directory
}

// RegistryChanged is told of a change of the registry: commands after it are
// decided by what the registry says then.
func (r *Router) RegistryChanged(c *events.RegistryChanged) {
	if r.commands == nil {
		return
	}
	switch c.Type {
	case events.TypeDeviceChanged:
		if c.DeviceID != "" {
			r.commands.directory.Changed(c.TenantID, c.DeviceID)
		}
	case events.TypeTenantChanged, events.TypeDevicesDeleted:
		r.commands.directory.Changed(c.TenantID, "")
	}
}

var (
	errCommandPresettled = &amqp.Error{Condition: amqp.CondPreconditionFailed,
		Description: "commands need an outcome: expected a link that is not of sender settle mode settled"}
	errAnnouncementPresettled = &amqp.Error{Condition: amqp.CondPreconditionFailed,
		Description: "announcements need an outcome: expected a link that is not of sender settle mode settled"}
	errCommandsRouted = &amqp.Error{Condition: amqp.CondNotAllowed,
		Description: "commands are routed here: adapters announce devices at " + auth.DeviceDirectory + " or cmd_router/TENANT and receive at command_internal/NAME"}
)

// announcer decides on a link for announcements.
func (r *Router) announcer(c *peer.Conn, address string) (forward.Access, *amqp.Error) {
	if err := r.granted(c, address, auth.Write); err != nil {
		return forward.Access{}, err
	}
	return forward.Access{Distribution: forward.Local, Service: r.commands.announcements, MaxMessage: maxAnnouncementMessage,
		Presettled: errAnnouncementPresettled}, nil
}

// routes reports whether commands sent to an address of this distribution are routed.
func (r *Router) routes(endpoint string, kind forward.Distribution) bool {
	return r.commands != nil && endpoint == commandEndpoint && kind == forward.Balanced
}

// commander is what a sender of commands is granted, who may send them.
func (r *Router) commander(id *auth.Identity, address string) (forward.Access, *amqp.Error) {
	tenant, _, _ := strings.Cut(strings.TrimPrefix(address, commandEndpoint+"/"), "/")
	if tenant == "" {
		return forward.Access{}, &amqp.Error{Condition: amqp.CondNotFound, Description: "no address " + clip(address) + ": commands go to command/TENANT"}
	}
	return forward.Access{Distribution: forward.Local, Service: r.commands.server, Credit: command.Credit,
		MaxMessage: uint64(id.Limits.MessageSize), Presettled: errCommandPresettled}, nil
}
