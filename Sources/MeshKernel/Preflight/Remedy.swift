/// What to do about something missing, in the words of the distribution at hand.
enum Remedy {
    /// A kernel with a feature of the mainline version `minimum`.
    static func newerKernel(_ minimum: String, _ distribution: Distribution) -> String {
        switch distribution {
        case .debian:
            "install a later kernel and reboot (Debian 12 has Linux 6.1; later ones are in its backports: apt-get "
                + "install -t bookworm-backports linux-image-amd64): this needs what came with Linux \(minimum)"
        case .ubuntu:
            "apt-get install --install-recommends linux-generic-hwe-$(. /etc/os-release; echo $VERSION_ID) and reboot: "
                + "this needs what came with Linux \(minimum)"
        case .rhel: "dnf upgrade kernel and reboot; before RHEL 9 not all of Linux \(minimum) is there"
        case .amazon: "AL2023, or on AL2 amazon-linux-extras install kernel-5.15, and reboot (Linux \(minimum))"
        case .flatcar: "update_engine_client -update: this needs what came with Linux \(minimum)"
        case .talos: "talosctl upgrade to a current release: this needs what came with Linux \(minimum)"
        case .bottlerocket: "apiclient update apply --reboot: this needs what came with Linux \(minimum)"
        case .cos: "upgrade the node pool to a current image: this needs what came with Linux \(minimum)"
        case .other: "use a kernel with what came with Linux \(minimum)"
        }
    }

    /// A kernel built with an option that this one lacks.
    static func option(_ names: String, since version: String, _ distribution: Distribution) -> String {
        distribution == .other
            ? "use a kernel (\(version) or later) built with \(names)"
            : "\(newerKernel(version, distribution)), built with \(names) as the distribution's own kernels are"
    }

    /// A module that exists but may not have been loaded.
    static func module(_ names: String, _ distribution: Distribution) -> String {
        switch distribution {
        case .talos: "name it under machine.kernel.modules: \(names)"
        case .bottlerocket: "set settings.kernel.modules.NAME.autoload for \(names)"
        case .cos: "choose an image that carries \(names)"
        case .rhel: "modprobe \(names) (package kernel-modules), and list it in /etc/modules-load.d/culvert.conf"
        case .debian, .ubuntu, .amazon, .flatcar, .other:
            "modprobe \(names), and list it in /etc/modules-load.d/culvert.conf"
        }
    }

    static func nftProgram(_ distribution: Distribution) -> String {
        switch distribution {
        case .debian, .ubuntu: "apt-get install nftables"
        case .rhel, .amazon: "dnf install nftables (before AL2023: yum)"
        case .flatcar, .talos, .bottlerocket, .cos:
            "run in a container whose image has nftables: the host installs none"
        case .other: "install nftables"
        }
    }

    static func unifiedCgroups(_ distribution: Distribution) -> String {
        let argument = "systemd.unified_cgroup_hierarchy=1"
        return switch distribution {
        case .debian, .ubuntu: "add \(argument) to GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub, reboot"
        case .rhel: "grubby --update-kernel=ALL --args=\(argument) and reboot"
        case .amazon: "use AL2023, or boot with \(argument)"
        case .flatcar: "set \(argument) in /usr/share/oem/grub.cfg and reboot (default since 2022)"
        case .talos, .bottlerocket, .cos: "use a release with cgroup v2, its default"
        case .other:
            "mkdir /sys/fs/cgroup/unified; mount -t cgroup2 none /sys/fs/cgroup/unified; or boot with cgroup v2"
        }
    }

    /// bpf(2) refused although the capabilities are there.
    static func permitBPF(_ distribution: Distribution) -> String {
        let privileged = "container: securityContext.privileged, or seccompProfile Unconfined"
        return switch distribution {
        case .rhel: "\(privileged) and seLinuxOptions.type spc_t; ausearch -m avc -ts recent shows what was denied"
        case .bottlerocket: "\(privileged); privileged containers get the SELinux type control_t"
        case .talos: "\(privileged), in a namespace labelled pod-security.kubernetes.io/enforce=privileged"
        default: "\(privileged); on the host, see what the service's SystemCallFilter= or an LSM denies"
        }
    }
}
