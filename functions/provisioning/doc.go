// Package provisioning lets devices come to be registered by themselves, and
// tells of it (contract: registry, section 9). The functions admission,
// credentials and registration link it; each keeps its own rules about who may.
//
// What was done is found in the registry alone: a caller that is killed between
// two steps leaves a device without the mark that the world was told, and the
// next look-up tells it again.
package provisioning
