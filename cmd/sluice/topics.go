package main

import "github.com/spf13/cobra"

// newTopics are pages of help that belong to no single command.
func newTopics() []*cobra.Command {
	page := func(name, short, long string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: long}
	}
	return []*cobra.Command{
		page("topics", "What there is to read here: sluice help TOPIC", `Topics, each read by: sluice help TOPIC

  environment   variables and files by which commands find an installation
  exit-codes    what the exit code of a command says
  output        tables, -o json, standard output and standard error
  filters       how lists and consumers are narrowed

Every command tells more about itself with --help. Completion for your shell:
sluice completion --help`),
		page("environment", "Variables and files by which commands find an installation", `A flag counts before a variable, and a variable before what is found in the data
folder of an installation on this machine: that of --data or SLUICE_DATA, or
./data, or the XDG data folder ($XDG_DATA_HOME/sluice, ~/.local/share/sluice).

Management API (tenant, device, credentials, event):
  SLUICE_URL              such as https://host:28443
  SLUICE_USER             an operator
  SLUICE_PASSWORD         his secret
  found in                operator.env

Applications, over AMQP 1.0 (command, consume):
  SLUICE_AMQP_URL         such as amqps://host:15671
  SLUICE_APP_USER         an application
  SLUICE_APP_PASSWORD     its secret
  found in                demo.env, of a demo

Management of a router, over AMQP 1.0 (router stat):
  SLUICE_ROUTER_URL       such as amqps://host:15671
  SLUICE_ROUTER_USER      an identity that may manage the router
  SLUICE_ROUTER_PASSWORD  its secret
  found in                operator.env

All of them:
  SLUICE_CA               the CA certificate to believe, for https and amqps

Both also take SLUICE_URL, SLUICE_USER and SLUICE_PASSWORD while SLUICE_URL is
not set or begins with amqp.

What is found in a data folder is not sent to
a server that was named by --url or a variable, unless it is the one of that
folder or --data names the folder, too; the demo's also to this machine.

Settings of the server's processes have variables of their own: sluice config
prints those in force.`),
		page("exit-codes", "What the exit code of a command says", `0  the command did what it says; also one that was ended by Ctrl-C when that is
   how it ends: consume, up, and the parts of an installation
1  anything else. The reason is the last line of standard error.

Exit code 1 in particular:
  command              the device did not get the command, or did not answer, or
                       answered with a status other than 200 to 299
  device reachable     the device cannot be reached
  device import, tenant import
                       some items failed; each is named on standard error
  update, credentials  somebody else has changed the thing meanwhile (412), and
                       nothing was done
  delete               nobody could be asked, and --yes was not given`),
		page("output", "Tables, -o json, standard output and standard error", `What was asked for goes to standard output; what a person should know besides,
and progress, to standard error. Progress is shown on terminals only.

Tables are for people and may change. For programs there is -o json: what the
management API gives, one object a line where there are several. A field that is
not known does not appear.

Secrets are printed when they are made and at no other time: by identity add and
update --new-secret, credentials set-password and add psk, and device import with
"generate". Redirect the output to a file that only you can read.`),
		page("filters", "How lists and consumers are narrowed", `tenant list, device list and device export:
  --filter field=value    the field is the path to a value: id, enabled, via,
                          ext/site, defaults/ttl, status/created. In text * is any
                          run of characters, ? one. true, false and numbers
                          are compared as such; in double quotes they are text.
                          A list matches by any element. Several: all must match.
  --sort field, -field    ascending, descending
  --limit N, --all        100 results unless told otherwise

consume:
  --device, --content-type, --property name=value
                          * and ? as above. One given several times: any of them;
                          different ones: all.
  --since 10m, --ttd-only, --count N
                          A message that does not match is taken all the same,
                          unless --release is given: sluice consume --help`),
	}
}
