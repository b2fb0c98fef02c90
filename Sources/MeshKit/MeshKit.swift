// The public face: what a third party may compose into a proxy of its own. Each module documents itself; the catalog
// beside this file says how they fit.

@_exported public import MeshAdmin
@_exported public import MeshDiscovery
@_exported public import MeshHTTP
@_exported public import MeshIdentity
@_exported public import MeshKernel
@_exported public import MeshModel
@_exported public import MeshNode
@_exported public import MeshProxy
@_exported public import MeshRuntime
@_exported public import MeshTLS
@_exported public import MeshTelemetry
@_exported public import MeshWaypoint
@_exported public import MeshWire
